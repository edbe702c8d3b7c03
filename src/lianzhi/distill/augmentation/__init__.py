"""More texts to learn from, made from those of a task: the teacher labels what nobody did."""

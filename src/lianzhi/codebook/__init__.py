"""Deep Compression (1510.00149): masks of removed weights, weights that share values, and files that are that small."""

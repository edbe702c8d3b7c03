"""The page's own words, English and Chinese. Names of steps, notes and reasons stay as they were written."""

from __future__ import annotations

WORDS: dict[str, tuple[str, str]] = {
    # frame
    "skip": ("Skip to the content", "跳到正文"),
    "report": ("Compression report", "模型压缩报告"),
    "theme": ("Light / dark", "浅色 / 深色"),
    "print": ("Print", "打印"),
    "copy": ("Copy", "复制"),
    "on": ("on {task}", "任务：{task}"),
    "target": ("runs on {runtime}", "部署于 {runtime}"),
    "original": ("Original", "原始模型"),
    "compressed": ("Compressed", "压缩后"),
    "deployed": ("deployed", "已部署"),
    "as_table": ("Show as a table", "以表格显示"),
    "unknown": ("not measured", "未测量"),
    # summary
    "summary": ("In short", "摘要"),
    "accuracy": ("Accuracy", "准确率"),
    "size": ("Size on disk", "文件大小"),
    "speed": ("Speed", "速度"),
    "compute": ("Compute", "计算量"),
    "points": ("{change} points", "{change} 个百分点"),
    "change": ("{change}", "{change}"),
    "smaller": ("{times} smaller", "缩小 {times}"),
    "larger": ("{times} larger", "增大 {times}"),
    "faster": ("{times} faster", "加速 {times}"),
    "slower": ("{times} slower", "变慢 {times}"),
    "fewer": ("{times} less", "减少 {times}"),
    "more": ("{times} more", "增加 {times}"),
    "same": ("unchanged", "不变"),
    "was": ("{after}, was {before}", "{before} → {after}"),
    "metric_on": ("{metric} on {split}, {samples} samples", "{split} 集 {metric}，{samples} 个样本"),
    "metric_split": ("{metric} on {split}", "{split} 集 {metric}"),
    "metric_only": ("{metric}", "{metric}"),
    "file": ("the file that ships", "部署文件"),
    "eager": ("eager PyTorch", "PyTorch 即时执行"),
    "speed_against": (
        "against {runtime} at batch {batch}, {threads}",
        "相对 {runtime}，批大小 {batch}，{threads}",
    ),
    "speed_alone": ("{runtime} at batch {batch}, {threads}", "{runtime}，批大小 {batch}，{threads}"),
    "threads": ("{threads} threads", "{threads} 线程"),
    "one_thread": ("1 thread", "1 线程"),
    "any_threads": ("median", "中位数"),
    "against_float": (
        "{times} against the fastest float: {runtime}, {latency}",
        "相对最快的浮点运行时（{runtime}，{latency}）：{times}",
    ),
    "at_batch": ("{times} at batch {batch}", "批大小 {batch} 时：{times}"),
    "parameters_were": ("{times} fewer parameters", "参数减少 {times}"),
    "macs_of": ("MACs of one sample", "单个样本的 MACs"),
    # steps
    "steps": ("Step by step", "逐步结果"),
    "steps_lead": (
        "Measured after every step. Small figures compare with the original.",
        "每一步之后均重新测量；小字为与原始模型的比较。",
    ),
    "step": ("Step", "步骤"),
    "parameters": ("Parameters", "参数量"),
    "file_size": ("Size", "大小"),
    "macs": ("MACs", "MACs"),
    "latency": ("Latency", "延迟"),
    "p90": ("p90", "p90"),
    "memory": ("Memory", "内存"),
    "runs_on": ("Runs on", "运行时"),
    "time": ("Time", "用时"),
    "validation": ("Validation", "验证集"),
    # charts
    "tradeoffs": ("Trade-offs", "权衡"),
    "tradeoffs_lead": (
        "Up and to the left is better. The broken line follows the steps; the stairs are the Pareto front: what none of the others "
        "beats in both.",
        "越靠左上越好；虚线表示步骤顺序，阶梯线为帕累托前沿：其上的点在两方面都不被其他任何点超过。",
    ),
    "accuracy_size": ("Accuracy against size", "准确率与大小"),
    "accuracy_latency": ("Accuracy against latency (batch {batch})", "准确率与延迟（批大小 {batch}）"),
    "accuracy_latency_in": ("Accuracy against latency: {place}", "准确率与延迟：{place}"),
    "log_scale": ("logarithmic scale", "对数刻度"),
    "point": ("Point", "数据点"),
    "legend_original": ("original", "原始模型"),
    "legend_step": ("step", "步骤"),
    "legend_final": ("result", "最终结果"),
    "legend_front": ("Pareto front", "帕累托前沿"),
    "legend_runtime": ("original in other float runtimes", "原始模型在其他浮点运行时"),
    # latencies
    "latencies": ("Latency in every runtime", "各运行时延迟"),
    "latencies_lead": (
        "Median time of one batch. Speed-ups compare with the original at the same batch and threads: in eager "
        "PyTorch, in its fastest float runtime, and in the same runtime's float32.",
        "单个批次用时的中位数。加速比以相同批大小与线程数下的原始模型为基准：PyTorch 即时执行、最快的浮点运行时、同一运行时的 float32。",
    ),
    "batch": ("Batch {batch}", "批大小 {batch}"),
    "batch_with_threads": ("Batch {batch} · {threads}", "批大小 {batch} · {threads}"),
    "runtime": ("Runtime", "运行时"),
    "median": ("Median", "中位数"),
    "throughput": ("Samples/s", "样本/秒"),
    "vs_eager": ("vs eager", "比即时执行"),
    "vs_float": ("vs best float", "比最快浮点"),
    "vs_same": ("vs own f32", "比同运行时 f32"),
    "fastest_float": (
        "Fastest float of the original: {runtime}, {latency}",
        "原始模型最快的浮点运行时：{runtime}，{latency}",
    ),
    # layers and time
    "layers": ("Channels kept per layer", "各层保留的通道"),
    "layers_lead": (
        "{after} of {before} output channels kept ({share}).",
        "共 {before} 个输出通道，保留 {after} 个（{share}）。",
    ),
    "more_layers": ("{count} more layers", "其余 {count} 层"),
    # weights by layer
    "weights_by_layer": ("Weights by layer", "各层权重"),
    "weights_lead": (
        "Bytes are those of each layer in a packed file, and below its weights those as float32; kept, bits and the bytes without Huffman are of the last of these "
        "steps. Below the bits of a code, and of an index that says where a weight is, stand the entropy and the bits that "
        "the file has of each. The plots show the weights that were not zero, and the values that they share.",
        "字节数为各层在打包文件中的大小，权重数下方为 float32 时的字节数；保留比例、位数与不用哈夫曼时的字节数取自其中最后一步。编码的位数和（指明权重位置的）索引的位数下方，"
        "是各自的熵与文件中实际的位数。图中为非零权重的分布及其共享的取值。",
    ),
    "layer": ("Layer", "层"),
    "weights": ("Weights", "权重数"),
    "weights_kept": ("Kept", "保留"),
    "bits": ("Bits", "位数"),
    "index_bits": ("Index bits", "索引位数"),
    "after_step": ("after {step}", "{step} 之后"),
    "without_huffman": ("without Huffman", "不用哈夫曼"),
    "ratio": ("Ratio", "压缩比"),
    "all_layers": ("all layers", "全部层"),
    "whole_file": ("whole file", "整个文件"),
    "shared_values": ("{count} shared values", "{count} 个共享取值"),
    "shared_value": ("Value", "取值"),
    "timeline": ("Where the time went", "用时"),
    "timeline_lead": ("{total} in total.", "共 {total}。"),
    # several runs
    "comparison": ("Comparison of runs", "多次运行的比较"),
    "runs_compared": ("{count} runs", "{count} 次运行"),
    "other_questions": (
        "These runs do not have the same task and metric, so their metrics are not compared and have charts of their own ({groups}).",
        "这些运行的任务或指标不同，因此不比较其指标，并分别作图（{groups}）。",
    ),
    "other_conditions": (
        "Latency was not measured alike in all runs, so it is not compared between them ({groups}).",
        "各次运行的延迟测量条件不同，因此彼此不作比较（{groups}）。",
    ),
    "run": ("Run", "运行"),
    "metric": ("Metric", "指标"),
    "shipped": ("What ships", "部署结果"),
    "shipped_lead": (
        "The last row of each run. Small figures compare with the run's own original. A heading sorts the table.",
        "各次运行的最后一行；小字为与该次运行原始模型的比较。点击表头可排序。",
    ),
    "shipped_best_lead": (
        "The last row of each run; the best of a column is bold. Small figures compare with the run's own original. A "
        "heading sorts the table.",
        "各次运行的最后一行，每列最优者以粗体显示；小字为与该次运行原始模型的比较。点击表头可排序。",
    ),
    "runs_tradeoffs_lead": (
        "Up and to the left is better. Named are what ships of each run and the originals; the small rings are steps on the way; the stairs are "
        "the Pareto front over all of them: what none of the others beats in both.",
        "越靠左上越好；标名的是各次运行的部署结果与原始模型，小圆环为中间步骤，阶梯线为全部点的帕累托前沿：其上的点在两方面都不被其他任何点超过。",
    ),
    "recipes": ("Differences of the recipes", "配方的差别"),
    "recipes_lead": (
        "What belongs to a step is compared among the runs that have the step.",
        "属于某个步骤的设置，只在含有该步骤的运行之间比较。",
    ),
    "environments": ("Differences of machines and versions", "机器与版本的差别"),
    "environments_lead": (
        "Numbers that were measured in other places differ for that reason too.",
        "测量环境不同，数值也会因此不同。",
    ),
    "setting": ("Setting", "设置"),
    "the_same": ("{count} are the same in all runs that have them", "{count} 项在含有它们的所有运行中相同"),
    "by_layer": ("Layer by layer", "逐层数据"),
    "by_layer_lead": (
        "What a report knows of each layer; the small figure is of the original. A heading sorts the table.",
        "报告中关于每一层的数据，小字为原始模型的值。点击表头可排序。",
    ),
    "all_layers_of": ("Show {count} layers", "显示 {count} 层"),
    "all_steps": ("Show {count} rows", "显示 {count} 行"),
    "channels": ("Channels", "通道数"),
    "packed_bytes": ("Packed bytes", "打包字节数"),
    "weight_sqnr": ("SQNR of weights", "权重的 SQNR"),
    "output_sqnr": ("SQNR of outputs", "输出的 SQNR"),
    "of": ("of {was}", "原为 {was}"),
    # decision and notes
    "decision": ("Decision and notes", "决策与说明"),
    "chosen": ("Deployed on {runtime}", "部署于 {runtime}"),
    "precision": ("Precision", "精度"),
    "file_name": ("File", "文件"),
    "verdict": ("Verdict", "结论"),
    "candidates": ("Candidates", "候选"),
    "notes": ("Notes", "说明"),
    # reproduce
    "recipe": ("Recipe", "配方"),
    "recipe_lead": (
        "Every default filled in: run it again for the same result.",
        "已填入全部默认值，可重新运行得到相同结果。",
    ),
    "details": ("Details of each step", "各步骤详情"),
    "environment": ("Environment", "环境"),
    "machine": ("Machine and versions", "机器与版本"),
    "task": ("Task", "任务"),
    "artifact": ("Artifact", "产物"),
    "reading": ("How to read this page", "如何阅读本页"),
    "reading_text": (
        "Accuracy is read on the named split, every sample once. MACs are of one sample, convolutions and "
        "matrix products. Size is the file that ships; 1 MB = 1,000,000 bytes. Latency is the median of "
        "repeated runs, p90 its 90th percentile. Memory is the peak in the runtime that ships, the original's as well. "
        "× compares with the original.",
        "准确率在所示数据集上统计，每个样本恰好一次。MACs 为单个样本的卷积与矩阵乘法次数。大小为部署文件大小，"
        "1 MB = 1,000,000 字节。延迟为多次运行的中位数，p90 为第 90 百分位。内存为部署运行时中的峰值，原始模型也在该运行时测量。× 均与原始模型比较。",
    ),
}

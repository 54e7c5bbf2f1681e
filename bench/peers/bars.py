"""What is demanded of our engine, as data: the report holds each line against the samples."""

#: Rates of the towers. `ratio`: at least so many times the peer's rate, in the median of rounds. `all` names shares of a limit
#: that must be reached besides, `either` shares of which reaching one is as good as the ratio.
ENCODE = [
    {"workload": "image-b32-32", "precision": "fp32", "peer": "onnxruntime-fp32", "ratio": 1.20, "all": {"peak": 0.90}},
    {"workload": "image-b32-1", "precision": "fp32", "peer": "onnxruntime-fp32", "ratio": 1.25},
    {"workload": "image-l14-8", "precision": "fp32", "peer": "onnxruntime-fp32", "ratio": 1.15},
    {"workload": "text-mixed", "precision": "fp32", "peer": "onnxruntime-fp32", "ratio": 1.6},
    {"workload": "text-1x12", "precision": "fp32", "peer": "onnxruntime-fp32", "ratio": 1.3, "either": {"bandwidth": 0.90}},
    {"workload": "text-zero-shot", "precision": "fp32", "peer": "onnxruntime-fp32", "ratio": 3.0},
    {"workload": "image-b32-1", "precision": "int8", "peer": "onnxruntime-int8", "ratio": 1.3},
    {"workload": "image-b32-32", "precision": "int8", "peer": "onnxruntime-int8", "ratio": 1.3},
]

#: Pictures per second from files to vectors, against the fastest Python way of the same round.
PIPELINE = [
    {"way": "ours fast int8", "ratio": 3.0},
    {"way": "ours fast fp32", "ratio": 1.8},
    {"way": "ours exact fp32", "ratio": 1.3},
]

#: Seconds from the start of a process to the first vector of a text, and how many times faster than the faster
#: of transformers' ways.
START = {"seconds": 0.6, "ratio": 8.0}

#: Most resident memory, as a share of PyTorch's.
MEMORY = {"share": 0.6}

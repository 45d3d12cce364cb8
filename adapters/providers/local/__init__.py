"""The local model: all-MiniLM-L6-v2 on ONNX Runtime, in this process, from files kept once per machine."""

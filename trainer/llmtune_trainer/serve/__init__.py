"""A base model and its LoRA adapters behind an OpenAI-compatible HTTP endpoint: one process, one model, any adapters.

It takes the flags of KServe's huggingfaceserver and of vLLM that choose what is served, and stands in for both where
no GPU is: FastAPI and uvicorn speak HTTP, transformers generates, peft applies the adapter that a request names. It
serves what it was started with and loads nothing that a request names; requests at once take turns.
"""

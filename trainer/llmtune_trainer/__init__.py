"""One LoRA fine-tune of a causal language model, as one command: flags in, metric lines and files out.

It reads a model and text (folder, Hugging Face Hub, S3), trains an adapter, evaluates it on text it was not
trained on, prints metrics the way Katib's collector reads them, and saves the adapter. It does not search,
schedule or retry: that is what runs it. It knows nothing of Airflow or Kubernetes.
"""

__version__ = "0.1.0"

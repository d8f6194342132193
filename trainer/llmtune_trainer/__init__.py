"""One fine-tune of a transformer, as one command: flags in, metric lines and files out.

It reads a model and rows (folder, Hugging Face Hub, S3), trains an adapter or all weights, evaluates them on rows they
were not trained on, prints metrics the way Katib's collectors read them, and saves the result. It does not search,
schedule or retry: that is what runs it. It knows nothing of Airflow or Kubernetes.
"""

__version__ = "0.1.0"

"""Links beside a task in Airflow's UI. They run in the worker, and the UI reads only the text that they leave."""

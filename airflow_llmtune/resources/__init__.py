"""What this provider knows of each Kubernetes kind: arguments in, manifests out; objects in, outcomes out.

Pure: the standard library only. No I/O, no clock, no randomness, nothing of Airflow. Nothing here creates,
watches or deletes an object; hooks and triggers do. Wire names of Katib and Kubernetes stay in this package.
"""

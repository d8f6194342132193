"""What outlives the control plane's process: objects, metric logs, and what clients know the server by.

A folder belongs to one control plane at a time. It holds an SQLite file, which the store and the DB manager write
to before they change anything in memory and read back only at a start, and the server's identity. It knows
nothing of Kubernetes; the pods' files, which lie in the same folder, are the kubelet's.
"""

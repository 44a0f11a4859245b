"""Tasks by the interfaces of other libraries: executors, process pools, joblib."""

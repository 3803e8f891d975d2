"""Several machines, by Ray: models are fitted, files scored and hyper-parameters sought by the workers of a cluster."""

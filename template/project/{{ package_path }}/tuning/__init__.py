"""Part: better hyper-parameters by search."""

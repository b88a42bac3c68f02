"""A reproducible study of batch normalization on MNIST: one module per DVC stage over a few shared ones."""

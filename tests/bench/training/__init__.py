"""What a training run costs beyond `fit`: see README.md."""

"""Slices to network to mask: U-Net, data loading, training, checkpoint, prediction. torch is known here only."""

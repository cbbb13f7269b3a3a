"""Parts of `modality_ground_truth.py`."""

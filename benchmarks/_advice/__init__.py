"""Parts of `advice_proof.py`: pairs with planted faults, the recipe of training, and ways to choose what to mend."""

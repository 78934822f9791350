"""Why a model answered as it did: its answer split into what each feature added (Shapley values), against rows of
training. Bound to nothing but a model that answers rows, so that whoever may read an artifact may ask."""

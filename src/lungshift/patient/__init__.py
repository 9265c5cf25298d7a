"""One patient: a scan to an answer. Predict, quantify, follow up; sees ``io`` and ``learn``, and draws nothing."""

"""Student -> artefact for a runtime: the file, the proof that it is the student, and how fast it is.

``onnx`` writes the file (``row_quantisation`` its int8 for texts), ``artefact`` the directory around it with real
``samples``, ``integrity`` its hashes. ``verify`` and ``latency`` are commands of their own (``python -m
distil.export.verify DIRECTORY``) which run without torch; ``process`` starts them.
"""

"""keras.applications are built once, on TensorFlow: plans do not depend on the backend."""

import keras

collect_ignore = [] if keras.backend.backend() == "tensorflow" else ["test_keras_applications.py"]

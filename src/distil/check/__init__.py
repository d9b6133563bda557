"""The pre-flight: what is wrong or suspicious in a recipe, its data and its models, before hours are spent."""

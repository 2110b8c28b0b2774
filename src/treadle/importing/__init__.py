"""A way in: what people already have becomes versions, runs, interactions and feedback, and nothing is trained again.

Each import leaves one run of kind ``import`` with what it gave; what is not known of a thing says "not recorded".
"""

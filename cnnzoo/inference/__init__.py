"""A trained net at its fastest."""

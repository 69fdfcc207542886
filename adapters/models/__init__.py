"""Models: the doors to the providers, and the scripted one that needs no key.

Home of the provider SDKs, loaded on first use.
"""

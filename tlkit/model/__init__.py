"""Model: from a plugin's network and a head to one module that is cut, frozen and run."""

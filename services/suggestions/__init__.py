"""The suggestions service: finds faces to ask about, and takes yes and no for an answer."""

"""A template: an agent of your own for mbkit, in a package of your own."""

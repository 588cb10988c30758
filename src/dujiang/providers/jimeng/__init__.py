"""Jimeng (即梦) on the Volcengine Visual API: the wire is in `wire`, codes are in `errors`, products in `models`."""

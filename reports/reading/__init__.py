"""What the report knows of a run: numbers, marks, stored arrays, published values.

Nothing here draws. ``numbers.Numbers`` looks up what results.json has, by loss, attack and eps;
``views.Shown`` reads the stored records of the models whose single images are shown.
``scene.Scene`` is one attack of a run. It may import ``words`` alone of the report; drawing,
chapters and page stand on it. Begin with ``numbers``.
"""

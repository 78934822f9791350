"""`truekeep why`: one decision, whole. `places`: where to look; `find`: the captured rows; `behind`: what answered, and
who made and approved it; `check`: whether the artifact still gives that answer, and why; `text`, `page`: for people."""

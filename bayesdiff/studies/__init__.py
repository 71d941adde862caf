"""Many runs as data: the plan of a study, the small files of its runs, the numbers of the paper beside them."""

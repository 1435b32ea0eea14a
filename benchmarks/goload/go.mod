module goload

go 1.26.0

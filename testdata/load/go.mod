module ptune/testdata/load

go 1.26.0

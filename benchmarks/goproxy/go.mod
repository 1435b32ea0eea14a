module goproxy

go 1.26.0

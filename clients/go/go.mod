module sluiceway-client

go 1.19

require (
	github.com/sluiceway/sluiceway/gen/go v0.0.0
	google.golang.org/genproto/googleapis/rpc v0.0.0-20230822172742-b8732ec3820d
	google.golang.org/grpc v1.58.3
	google.golang.org/protobuf v1.31.0
)

// The stubs that `make gen` makes.
replace github.com/sluiceway/sluiceway/gen/go => ./gen

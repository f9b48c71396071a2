"""What a server does for each of its methods while nobody calls them: nothing."""

import asyncio

import grpc
import grpc.aio
from sluiceway_runtime.config import ServerConfig
from sluiceway_runtime.inference import open_inference_pb2 as pb
from sluiceway_runtime.inference import open_inference_pb2_grpc
from sluiceway_runtime.server.listening import bind, make_server
from waiting import until


async def test_a_server_keeps_no_task_for_each_of_its_methods() -> None:
    class Live(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
        async def ServerLive(self, request: pb.ServerLiveRequest, context: object) -> pb.ServerLiveResponse:
            del request, context
            return pb.ServerLiveResponse(live=True)

    async with asyncio.timeout(30):
        own = await tasks_of(make_server(config := ServerConfig(port=0, operations_port=0), []), config)
        server = make_server(config, [])
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Live(), server)
        before = len(asyncio.all_tasks())
        port = bind(server, config)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
                assert (await stub.ServerLive(pb.ServerLiveRequest())).live
                # What ended the call goes first.
                await until(lambda: len(asyncio.all_tasks()) - before <= own)
        finally:
            await server.stop(0)


async def tasks_of(server: grpc.aio.Server, config: ServerConfig) -> int:
    """Of a server without any method."""
    before = len(asyncio.all_tasks())
    bind(server, config)
    await server.start()
    try:
        await asyncio.sleep(0)
        return len(asyncio.all_tasks()) - before
    finally:
        await server.stop(0)

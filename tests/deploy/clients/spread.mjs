// Asks the orchestrators behind an address for their description, as often as it is told, over one channel.
import grpc from "@grpc/grpc-js";

const [address, calls] = [process.argv[2], Number(process.argv[3])];
const policy = JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] });
// A name that stands for several, or a list of addresses.
const target = address.startsWith("ipv4:") ? address : `dns:///${address}`;
const client = new grpc.Client(target, grpc.credentials.createInsecure(), {
  "grpc.service_config": policy,
});
const method = "/sluiceway.pipeline.v1.PipelineService/Describe";
const empty = () => Buffer.alloc(0);
const as_it_is = (bytes) => bytes;

// grpc-js begins with the first server that it has reached; the others follow within the first calls.
await new Promise((done, failed) =>
  client.waitForReady(Date.now() + 20_000, (error) => (error ? failed(error) : done())),
);
let failures = 0;
for (let call = 0; call < calls; call++) {
  await new Promise((done) => {
    const options = { deadline: Date.now() + 20_000 };
    client.makeUnaryRequest(method, empty, as_it_is, {}, new grpc.Metadata(), options, (error) => {
      if (error) {
        console.error(error.message);
        failures++;
      }
      done();
    });
  });
}
client.close();
console.log(failures);

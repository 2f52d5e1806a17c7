//! Generates the gRPC types. protox parses the files, so no `protoc` is needed on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(
        ["flotilla/node.proto", "flotilla/peer.proto", "grpc/health.proto"],
        ["."],
    )?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    println!("cargo:rerun-if-changed=flotilla");
    println!("cargo:rerun-if-changed=grpc");
    Ok(())
}

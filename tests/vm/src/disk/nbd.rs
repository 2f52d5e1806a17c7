//! The NBD protocol, as much of it as qemu needs to use an [`Export`] as a disk of its guest.
//!
//! https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md: the fixed newstyle handshake with `NBD_OPT_GO`, then
//! reads, writes and flushes with simple replies. What was not offered (trim, writing zeroes) qemu does without.

use std::{
    io::{self, BufReader, Read, Write},
    os::unix::net::UnixStream,
};

const GREETING: &[u8; 8] = b"NBDMAGIC";
const OPTION: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;

/// Fixed newstyle, and no padding after the old way to name an export.
const HANDSHAKE_FLAGS: u16 = 0b11;
/// The flags are there, and flushes are understood. Without it there would be no cache in qemu's eyes.
const EXPORT_FLAGS: u16 = 0b101;

const OPTION_ABORT: u32 = 2;
const OPTION_GO: u32 = 7;
const REPLY_ACKNOWLEDGED: u32 = 1;
const REPLY_INFORMATION: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 0x8000_0001;
const INFORMATION_EXPORT: u16 = 0;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;

const INPUT_OUTPUT_ERROR: u32 = 5;
const INVALID: u32 = 22;
/// More is asked for by nothing but a broken peer: qemu's requests are of 32 MiB at most.
const LENGTH_MAX: u32 = 64 << 20;

/// What is served.
pub(super) trait Export {
    /// Its size.
    fn bytes(&self) -> u64;

    fn read(&self, offset: u64, content: &mut [u8]) -> io::Result<()>;

    /// May be forgotten until it is flushed.
    fn write(&self, offset: u64, content: &[u8]) -> io::Result<()>;

    /// Whether it was done. If it was not, the client never hears of it again.
    fn flush(&self) -> io::Result<bool>;
}

/// Speaks with one client until it says that it leaves, or is gone.
pub(super) fn serve(stream: &UnixStream, disk: &impl Export) -> io::Result<()> {
    let (mut input, mut output) = (BufReader::new(stream), stream);
    if !greet(&mut input, &mut output, disk)? {
        return Ok(());
    }
    loop {
        let request = Request::read(&mut input)?;
        if request.kind == DISCONNECT {
            return Ok(());
        }
        let answer = match request.carry_out(disk) {
            Ok(Some(content)) => request.reply(0, &content),
            Ok(None) => continue,
            Err(error) => request.reply(error_number(&error), &[]),
        };
        output.write_all(&answer)?;
    }
}

/// Whether the client has chosen the disk.
fn greet(input: &mut impl Read, output: &mut impl Write, disk: &impl Export) -> io::Result<bool> {
    output.write_all(&[&GREETING[..], OPTION, &HANDSHAKE_FLAGS.to_be_bytes()].concat())?;
    let _client_flags = read_u32(input)?;
    loop {
        if &read_array(input)? != OPTION {
            return Err(protocol_error("an option has no magic"));
        }
        let option = read_u32(input)?;
        // There is one disk, whatever its name.
        let _content = read_content(input)?;
        let reply = |kind: u32, content: &[u8]| {
            let length = u32::try_from(content.len()).expect("replies are short");
            let head = [option.to_be_bytes(), kind.to_be_bytes(), length.to_be_bytes()].concat();
            [&OPTION_REPLY.to_be_bytes()[..], &head, content].concat()
        };
        match option {
            OPTION_GO => {
                let bytes = disk.bytes();
                let mut export = INFORMATION_EXPORT.to_be_bytes().to_vec();
                export.extend(bytes.to_be_bytes());
                export.extend(EXPORT_FLAGS.to_be_bytes());
                output.write_all(&reply(REPLY_INFORMATION, &export))?;
                output.write_all(&reply(REPLY_ACKNOWLEDGED, &[]))?;
                return Ok(true);
            }
            OPTION_ABORT => {
                output.write_all(&reply(REPLY_ACKNOWLEDGED, &[]))?;
                return Ok(false);
            }
            _ => output.write_all(&reply(REPLY_UNSUPPORTED, &[]))?,
        }
    }
}

struct Request {
    kind: u16,
    handle: [u8; 8],
    offset: u64,
    length: u32,
    content: Vec<u8>,
}

impl Request {
    fn read(stream: &mut impl Read) -> io::Result<Self> {
        if read_u32(stream)? != REQUEST {
            return Err(protocol_error("a request has no magic"));
        }
        let _flags: [u8; 2] = read_array(stream)?;
        let mut request = Self {
            kind: u16::from_be_bytes(read_array(stream)?),
            handle: read_array(stream)?,
            offset: u64::from_be_bytes(read_array(stream)?),
            length: read_u32(stream)?,
            content: Vec::new(),
        };
        if request.length > LENGTH_MAX {
            return Err(protocol_error("a request is too large"));
        }
        if request.kind == WRITE {
            request.content = vec![0; request.length as usize];
            stream.read_exact(&mut request.content)?;
        }
        Ok(request)
    }

    /// What a read has read, nothing for the others; `None` if there is no answer.
    fn carry_out(&self, disk: &impl Export) -> io::Result<Option<Vec<u8>>> {
        match self.kind {
            READ => {
                let mut content = vec![0; self.length as usize];
                disk.read(self.offset, &mut content)?;
                Ok(Some(content))
            }
            WRITE => {
                disk.write(self.offset, &self.content)?;
                Ok(Some(Vec::new()))
            }
            FLUSH => Ok(disk.flush()?.then(Vec::new)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn reply(&self, error: u32, content: &[u8]) -> Vec<u8> {
        [
            &REPLY.to_be_bytes()[..],
            &error.to_be_bytes(),
            &self.handle,
            content,
        ]
        .concat()
    }
}

fn error_number(error: &io::Error) -> u32 {
    match error.kind() {
        io::ErrorKind::InvalidInput => INVALID,
        _ => INPUT_OUTPUT_ERROR,
    }
}

fn protocol_error(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn read_content(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = read_u32(stream)?;
    if length > LENGTH_MAX {
        return Err(protocol_error("an option is too large"));
    }
    let mut content = vec![0; length as usize];
    stream.read_exact(&mut content)?;
    Ok(content)
}

fn read_u32(stream: &mut impl Read) -> io::Result<u32> {
    Ok(u32::from_be_bytes(read_array(stream)?))
}

fn read_array<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

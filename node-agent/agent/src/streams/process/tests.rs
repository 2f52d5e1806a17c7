//! Output is sent whole, whenever anybody comes to look at it.

use std::io::Write as _;

use super::*;

/// What is sent of a process that has written `written` and ended, while another one holds its output open; nobody
/// looks at it for longer than silence takes.
async fn sent_late(written: &[u8]) -> Vec<Frame> {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(written).unwrap();
    let reader = ExecReader::pipe(reader.into()).unwrap();
    let finished = CancellationToken::new();
    finished.cancel();
    let (outgoing, mut frames) = mpsc::channel(16);
    tokio::join!(
        output(Some(reader), channel::STDOUT, &outgoing, &finished),
        tokio::time::advance(QUIET * 2),
    );
    drop((outgoing, writer));
    let mut sent = Vec::new();
    while let Some(frame) = frames.recv().await {
        sent.push(frame);
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn output_is_whole_although_nobody_looked_until_silence_was_over() {
    // Which of two things that have both happened is seen first is chance.
    for _ in 0..64 {
        assert_eq!(
            sent_late(b"words").await,
            [
                Frame::data(channel::STDOUT, "words"),
                Frame::close(channel::STDOUT)
            ]
        );
    }
}

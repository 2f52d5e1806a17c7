//! Output is sent whole, whenever anybody comes to look at it; terminals start with their size.

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

/// What is taken before a command starts, of what a client says.
async fn taken_first(said: &[Frame]) -> Vec<Frame> {
    let (client, mut incoming) = mpsc::channel(32);
    for frame in said {
        client.send(frame.clone()).await.unwrap();
    }
    first_frames(&mut incoming).await
}

#[tokio::test(start_paused = true)]
async fn a_terminals_size_is_waited_for_behind_input() {
    let input = Frame::data(channel::STDIN, "words");
    let told = Frame::data(channel::RESIZE, r#"{"Width":100,"Height":40}"#);
    let first = taken_first(&[
        input.clone(),
        Frame::close(channel::STDIN),
        told.clone(),
        input.clone(),
    ])
    .await;
    assert_eq!(first, [input.clone(), Frame::close(channel::STDIN), told]);
    let wanted = TerminalSize {
        columns: 100,
        rows: 40,
    };
    assert_eq!(first.last().and_then(size), Some(wanted));
    let without = taken_first(std::slice::from_ref(&input)).await;
    assert_eq!(
        without,
        std::slice::from_ref(&input),
        "it goes on without a size in the end"
    );
    let much = vec![input; FIRST_FRAMES_MAX + 1];
    assert_eq!(taken_first(&much).await.len(), FIRST_FRAMES_MAX);
}

//! What workers and servers say to each other, as the wire between them sees it.
//!
//! A server that has answered has acknowledged, whether the worker hears of it or not, and
//! what has not reached it was not asked: so both are taken down at the server's end, and a
//! request counts from its last byte on.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use kiln_core::{
    farm::Fence,
    testing::history::{Event, Text},
};
use kiln_wire::report::{End, Stored};

use super::record::{Record, UNKNOWN, now};

/// The longest message that is understood; a log's append is at most 1 MiB.
const LONGEST: usize = 8 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the server.
    Up,
    /// From it.
    Down,
}

/// Listens to a worker.
#[derive(Clone)]
pub struct Tap(Record);

impl Tap {
    pub fn new(record: Record) -> Self {
        Self(record)
    }

    /// Listens to one connection more.
    pub fn connection(&self) -> Arc<Tapped> {
        Arc::new(Tapped {
            record: self.0.clone(),
            wire: Mutex::default(),
        })
    }
}

/// A connection that is listened to.
pub struct Tapped {
    record: Record,
    wire: Mutex<Wire>,
}

#[derive(Default)]
struct Wire {
    up: Buffer,
    down: Buffer,
    /// Requests that wait for their answers.
    asked: VecDeque<(u64, Asked)>,
    /// It is no HTTP any more, or none that is understood.
    deaf: bool,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
}

/// A request.
enum Asked {
    Begun(Fence),
    End(Fence, End),
    Log(Fence, String, u64, Vec<u8>),
    Other,
}

/// A message's first line, and how its body ends.
pub struct Head {
    first: String,
    length: usize,
    body: Body,
}

enum Body {
    Length(usize),
    Chunked,
    /// With the connection.
    End,
}

impl Head {
    /// How long the message is whose length is said; else its head.
    pub fn whole(&self) -> usize {
        match self.body {
            Body::Length(length) => self.length + length,
            Body::Chunked | Body::End => self.length,
        }
    }
}

impl Tapped {
    pub fn saw(&self, direction: Direction, bytes: &[u8]) {
        let mut wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        if wire.deaf {
            return;
        }
        let buffer = match direction {
            Direction::Up => &mut wire.up,
            Direction::Down => &mut wire.down,
        };
        buffer.bytes.extend_from_slice(bytes);
        let too_long = buffer.bytes.len() > LONGEST;
        let understood = match direction {
            Direction::Up => requests(&mut wire),
            Direction::Down => answers(&mut wire, &self.record),
        };
        if too_long || understood.is_none() {
            *wire = Wire {
                deaf: true,
                ..Wire::default()
            };
        }
    }
}

/// Notes the requests that have come whole. None when they can't be understood.
fn requests(wire: &mut Wire) -> Option<()> {
    while let Some((head, body)) = wire.up.message(false)? {
        let asked = understand(&head.first, body).unwrap_or(Asked::Other);
        wire.asked.push_back((now(), asked));
    }
    Some(())
}

/// Notes what was answered. None when it can't be understood, or is no HTTP any more.
fn answers(wire: &mut Wire, record: &Record) -> Option<()> {
    while let Some((head, body)) = wire.down.message(true)? {
        let status = head.first.split(' ').nth(1)?;
        if status == "101" {
            return None;
        }
        let (asked, request) = wire.asked.pop_front()?;
        if status.starts_with('2') {
            acknowledged(asked, request, &body, record);
        }
    }
    Some(())
}

fn understand(line: &str, body: Vec<u8>) -> Option<Asked> {
    let path = line.split(' ').nth(1)?;
    let (fence, what) = path.strip_prefix("/worker/lease/")?.split_once('/')?;
    let fence = Fence(fence.parse().ok()?);
    match what.split_once('?').unwrap_or((what, "")) {
        ("begun", _) => Some(Asked::Begun(fence)),
        ("end", _) => Some(Asked::End(fence, serde_json::from_slice(&body).ok()?)),
        ("log", query) => {
            let of = |name: &str| {
                let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                pairs
                    .clone()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| value)
            };
            let task = of("task").unwrap_or_default().to_owned();
            Some(Asked::Log(fence, task, of("offset")?.parse().ok()?, body))
        }
        _ => None,
    }
}

fn acknowledged(asked: u64, request: Asked, answer: &[u8], record: &Record) {
    let job = UNKNOWN;
    match request {
        Asked::Begun(fence) => record.say(Event::Begun { job, fence, asked }),
        Asked::End(fence, end) => record.say(Event::Ended {
            job,
            fence,
            status: end.status,
            asked,
        }),
        Asked::Log(fence, task, offset, mut bytes) => {
            let Ok(Stored { stored }) = serde_json::from_slice(answer) else {
                return;
            };
            let taken = usize::try_from(stored.saturating_sub(offset)).unwrap_or(usize::MAX);
            bytes.truncate(taken);
            if !bytes.is_empty() {
                record.say(Event::Stored {
                    job,
                    fence,
                    task,
                    offset,
                    bytes: Text(bytes),
                    asked,
                });
            }
        }
        Asked::Other => {}
    }
}

impl Buffer {
    /// Takes a message off, if it is there whole. None when it is none.
    #[expect(clippy::option_option, reason = "not yet is not never")]
    fn message(&mut self, answer: bool) -> Option<Option<(Head, Vec<u8>)>> {
        let Some(head) = head(&self.bytes, answer)? else {
            return Some(None);
        };
        let rest = &self.bytes[head.length..];
        let (used, body) = match head.body {
            Body::Length(length) if rest.len() < length => return Some(None),
            Body::Length(length) => (length, rest[..length].to_vec()),
            Body::Chunked => match chunks(rest)? {
                Some(read) => read,
                None => return Some(None),
            },
            Body::End => return None,
        };
        self.bytes.drain(..head.length + used);
        Some(Some((head, body)))
    }
}

#[expect(clippy::option_option, reason = "not yet is not never")]
pub fn head(bytes: &[u8], answer: bool) -> Option<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Some(None);
    };
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = text.split("\r\n");
    let first = lines.next()?.to_owned();
    let fields = lines.filter_map(|line| line.split_once(':'));
    let of = |name: &str| {
        let mut fields = fields.clone();
        let found = fields.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_ascii_lowercase())
    };
    let status = first.split(' ').nth(1).unwrap_or_default();
    let bodiless = answer && (status.starts_with('1') || status == "204" || status == "304");
    let body = match (of("content-length"), of("transfer-encoding")) {
        _ if bodiless => Body::Length(0),
        (_, Some(coding)) if coding == "chunked" => Body::Chunked,
        (Some(length), _) => Body::Length(length.parse().ok()?),
        (None, _) if answer => Body::End,
        (None, _) => Body::Length(0),
    };
    Some(Some(Head {
        first,
        length: end + 4,
        body,
    }))
}

/// What chunks hold, and how long they are, if all are there.
#[expect(clippy::option_option, reason = "not yet is not never")]
fn chunks(bytes: &[u8]) -> Option<Option<(usize, Vec<u8>)>> {
    let mut at = 0;
    let mut body = Vec::new();
    loop {
        let rest = &bytes[at..];
        let Some(line) = rest.windows(2).position(|two| two == b"\r\n") else {
            return Some(None);
        };
        let size = std::str::from_utf8(&rest[..line]).ok()?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        let begin = line + 2;
        if rest.len() < begin + size + 2 {
            return Some(None);
        }
        body.extend_from_slice(&rest[begin..begin + size]);
        at += begin + size + 2;
        if size == 0 {
            return Some(Some((at, body)));
        }
    }
}

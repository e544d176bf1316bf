//! What a hobbit runs: a small server that says whose it is, and counts its visitors in its storage.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// Time a visitor may take to ask, since they are served one after the other.
const VISIT: Duration = Duration::from_secs(2);

/// Answers every HTTP request with a name.
#[derive(Debug, Parser)]
struct Options {
    /// Port to listen on, at `RADIX_IP` where the underverse tells one, else at every address.
    #[arg(short = 'p')]
    port: u16,
    /// Whose answers these are.
    #[arg(short = 'a')]
    name: String,
    /// Storage in which visitors are counted.
    #[arg(short = 'd')]
    data: PathBuf,
}

fn main() -> ExitCode {
    match serve(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a standard error there is nobody to tell.
            let _ = writeln!(io::stderr(), "server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> io::Result<()> {
    let told = std::env::var("RADIX_IP")
        .ok()
        .and_then(|ip| ip.parse().ok());
    let host: IpAddr = told.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let visits = options.data.join("visits");
    let before = fs::read_to_string(&visits).unwrap_or_default();
    let mut count: u64 = before.trim().parse().unwrap_or(0);
    let listener = TcpListener::bind((host, options.port))?;
    for visitor in listener.incoming() {
        count += 1;
        fs::write(&visits, format!("{count}\n"))?;
        let text = format!("{} of the shire, visit {count}\n", options.name);
        // A visitor who leaves early is no reason to end.
        let _ = visitor.and_then(|visitor| answer(visitor, &text));
    }
    Ok(())
}

fn answer(mut visitor: TcpStream, text: &str) -> io::Result<()> {
    visitor.set_read_timeout(Some(VISIT))?;
    visitor.set_write_timeout(Some(VISIT))?;
    let mut asked = BufReader::new(visitor.try_clone()?);
    let mut line = String::new();
    while asked.read_line(&mut line)? > 2 {
        line.clear();
    }
    let length = text.len();
    write!(
        visitor,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    )
}

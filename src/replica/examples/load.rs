//! scratch load generator
use ackord_machine::site::*;
use ackord_replica::*;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = s.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
fn switches() -> u64 {
    let mut n = 0;
    for t in std::fs::read_dir("/proc/self/task").unwrap() {
        let s = std::fs::read_to_string(t.unwrap().path().join("status")).unwrap();
        for l in s.lines() {
            if l.starts_with("voluntary") {
                n += l.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
            }
        }
    }
    n
}
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let dir = args[1].clone();
    let tasks: usize = args[2].parse().unwrap();
    let secs: u64 = args[3].parse().unwrap();
    let inflight: usize = args.get(4).map_or(2, |a| a.parse().unwrap());
    let partitions: u32 = args.get(5).map_or(16, |a| a.parse().unwrap());
    let mut o = NodeOptions::new(dir);
    o.entries_in_flight_max = inflight;
    o.partitions = partitions;
    let t = Instant::now();
    let node = Arc::new(Node::start(o).unwrap());
    println!("start {:?}", t.elapsed());
    if tasks == 0 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (c, s) = (cpu(), switches());
        tokio::time::sleep(Duration::from_secs(secs)).await;
        println!(
            "idle cpu {:.2} % wakes/s {}",
            (cpu() - c) * 100.0 / secs as f64,
            (switches() - s) / secs
        );
        node.shutdown();
        return;
    }
    let done = Arc::new(AtomicU64::new(0));
    let lat = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let stop = Instant::now() + Duration::from_secs(secs);
    let mut js = Vec::new();
    for n in 0..tasks {
        let (node, done, lat) = (node.clone(), done.clone(), lat.clone());
        js.push(tokio::spawn(async move {
            let site = SiteName::new(format!("s{n}"));
            let at = node.partition_of(&site);
            let p = |c: Command| {
                let at = at.clone();
                async move {
                    loop {
                        match at.try_propose(c.clone()) {
                            Ok(x) => return x.await.unwrap(),
                            Err(_) => tokio::task::yield_now().await,
                        }
                    }
                }
            };
            p(Command::Admin {
                request: RequestId([1; 16]),
                site: site.clone(),
                action: AdminAction::CreateSite {
                    settings: SiteSettings {
                        multi_service: false,
                        constructible: true,
                        guests_allowed: true,
                        stateless_guests_allowed: true,
                    },
                    incarnation: Incarnation(1),
                },
            })
            .await;
            p(Command::Admin {
                request: RequestId([2; 16]),
                site: site.clone(),
                action: AdminAction::CreateService { id: "b".into() },
            })
            .await;
            let a = p(Command::AttachService(AttachService {
                site: site.clone(),
                service: "b".into(),
                structure: Some(Structure {
                    service_type: "B".into(),
                    contract_author: "A".into(),
                    guests: GuestSupport::None,
                    roles: vec![],
                    owner_role: None,
                    events: vec![EventDefinition {
                        name: "E".into(),
                        kind: Kind::Queueing {
                            lifetime_s: 3600,
                            size: 100,
                            access: Access::Everyone,
                        },
                    }],
                }),
                version: "".into(),
                hostname: "".into(),
                uid: StorageUid([1; 16]),
                continues: None,
                incarnation: Incarnation(1),
            }))
            .await;
            let Outcome::ServiceAttached { epoch, last, .. } = a else { panic!("{a:?}") };
            let mut seq = last;
            let mut mine = Vec::new();
            while Instant::now() < stop {
                seq = seq.next();
                let t = Instant::now();
                let o = p(Command::Raise(Raise {
                    site: site.clone(),
                    service: "b".into(),
                    epoch,
                    uid: StorageUid([1; 16]),
                    sequence: seq,
                    event: NewEvent {
                        name: "E".into(),
                        category: None,
                        arguments: Some(Arguments {
                            content_type: "application/json".into(),
                            data: Bytes::from_static(&[b'x'; 64]),
                        }),
                        client: None,
                        lifetime_s: None,
                    },
                }))
                .await;
                assert!(matches!(o, Outcome::Raised(_)), "{o:?}");
                mine.push(t.elapsed().as_micros() as u32);
                done.fetch_add(1, Ordering::Relaxed);
            }
            lat.lock().extend(mine);
        }));
    }
    let c0 = cpu();
    let t0 = Instant::now();
    for j in js {
        j.await.unwrap();
    }
    let el = t0.elapsed().as_secs_f64();
    let mut l = std::mem::take(&mut *lat.lock());
    l.sort();
    println!(
        "tasks {tasks} inflight {inflight}: {:.0}/s p50 {} us p99 {} us cpu {:.0} %",
        done.load(Ordering::Relaxed) as f64 / el,
        l[l.len() / 2],
        l[l.len() * 99 / 100],
        (cpu() - c0) * 100.0 / el
    );
    println!("{:?}", node.counters());
    let t = Instant::now();
    node.shutdown();
    println!("stop {:?}", t.elapsed());
}

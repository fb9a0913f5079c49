//! Push subscriptions that a client registers for itself, through the SDK.

use ackord_endpoint::push::{PushBody, PushState};
use ackord_endpoint::{Code, PushError, Pushes};
use cluster_tests::node::Node;
use cluster_tests::receiver::{Manner, Receiver};
use cluster_tests::site::{Site, queueing, structure};
use cluster_tests::wait;

const EVENT: &str = "reading";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m1_a_client_registers_resumes_and_ends_its_own_push_subscription() {
    let node = Node::start_with(&[], &["push.hosts=127.0.0.1"]).await.expect("the broker starts");
    let site = Site::new(&node, "own", &structure(&[queueing(EVENT, 100)])).await;
    let (client, other) = (site.guest("c").await, site.guest("other").await);
    let raiser = site.raises("boiler").await;
    // The first address is nobody's.
    let urls = ["http://127.0.0.1:9", node.url()];
    let pushes = Pushes::new(urls, "own", client.token.clone(), None).expect("good options");
    let receiver = Receiver::start(Manner::Answers).await;
    let body = PushBody { url: Some(receiver.url()), ..PushBody::new(EVENT) };
    let made = pushes.put("hook", &body).await.expect("it is registered");
    assert_eq!((made.client.as_str(), made.state), ("c", PushState::Active));
    let ids = raiser.raise_many(EVENT, 3).await;
    wait::until_true("every event to arrive", async || receiver.count() >= ids.len()).await;
    let all = pushes.list().await.expect("a list");
    assert_eq!(all.iter().map(|push| push.id.as_str()).collect::<Vec<_>>(), ["hook"]);

    // Another client sees nothing of it.
    let others = Pushes::new([node.url()], "own", other.token, None).expect("good options");
    assert!(others.list().await.expect("a list").is_empty());
    let refused = others.show("hook").await.expect_err("it is another's");
    assert!(matches!(&refused, PushError::Refused(problem) if problem.code == Code::NotFound));
    assert!(!refused.retryable());

    // What is not allowed is refused by its code and field.
    let away = PushBody { url: Some("http://10.0.0.1/".to_owned()), ..PushBody::new(EVENT) };
    match pushes.put("away", &away).await {
        Err(PushError::Refused(problem)) => {
            assert_eq!(problem.code, Code::CallbackNotAllowed);
            assert_eq!(problem.field.as_deref(), Some("url"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(pushes.resume("hook").await.expect("it is there").state, PushState::Active);
    pushes.delete("hook").await.expect("it is ended");
    pushes.delete("hook").await.expect("once more is no error");
    assert!(pushes.list().await.expect("a list").is_empty());
}

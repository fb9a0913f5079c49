//! Members come and go while nodes die.

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use super::{Run, leader, others, victims};

/// Row 21.
pub fn members(run: &mut Run) -> LocalBoxFuture<'_, ()> {
    async move {
        let asked = run.cluster.running()[0];
        let table = run.cluster.operate(asked, &["cluster", "join"]).await;
        let members: Vec<String> =
            serde_json::from_value(table["join"].clone()).expect("addresses");
        let node = run.cluster.add(&members).expect("there is room");
        run.cluster.start_node(node).await.expect("the node starts");
        let moment = run.seed.millis(0, 1500);
        run.cluster.lasts(moment).await;
        // A leader dies while votes move to the one that comes.
        let (victim, _) = leader(&run.cluster, &mut run.seed).await;
        run.cluster.kill(victim);
        run.injected(1);
        run.load.flows(2).await;
        run.cluster.start_node(victim).await.expect("the node starts again");
        run.cluster.ready().await;
        // Another one is told to go, and somebody else dies meanwhile.
        let goes = victims(&run.cluster, &mut run.seed, 1)[0];
        let number = run.cluster.view(goes).await.expect("the node answers")["node"].to_string();
        let asked = others(&run.cluster, goes)[0];
        run.cluster.operate(asked, &["cluster", "drain", &number, "--no-wait"]).await;
        let dies = others(&run.cluster, goes)[1];
        let moment = run.seed.millis(0, 800);
        run.cluster.lasts(moment).await;
        run.cluster.kill(dies);
        run.injected(1);
        let moment = run.seed.millis(0, 800);
        run.cluster.lasts(moment).await;
        run.cluster.start_node(dies).await.expect("the node starts again");
        let drained = run.cluster.operate(asked, &["cluster", "drain", &number]).await;
        assert_eq!(drained["done"], true, "{drained}");
        assert_eq!(run.cluster.stop(goes).await.expect("it runs"), Some(0), "it stops in order");
        run.cluster.operate(asked, &["cluster", "remove", &number]).await;
        run.load.flows(2).await;
    }
    .boxed_local()
}

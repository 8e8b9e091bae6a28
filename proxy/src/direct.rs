//! Says on this node's Node object whether it answers clients of other nodes itself, as
//! [`DirectAnswers`] has it: by that other nodes know whether they may send packets here as they are.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, ready};
use std::time::Duration;

use seaway_cluster::{Source, direct};
use seaway_model::DirectAnswers;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long the API may take over one request.
const LIMIT: Duration = Duration::from_secs(10);
/// How long to wait before it is tried again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often it is looked whether the Node still says so: one that registers anew does not.
const PERIOD: Duration = Duration::from_secs(300);

/// Has the Node say what is [wanted](Self::say), in a task of its own. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Announcer {
    wanted: watch::Sender<Option<DirectAnswers>>,
    said: watch::Receiver<Option<DirectAnswers>>,
}

impl Announcer {
    /// Says nothing until it is told what; must be called inside a tokio runtime. Manifests have no Node to say it on: there
    /// whoever writes them says it.
    pub fn start(source: &Source, node: &str) -> Self {
        let (wanted, to_say) = watch::channel(None);
        let (said, is_said) = watch::channel(None);
        match source {
            Source::Kube(server) => {
                let (client, node) = (server.client.clone(), node.to_owned());
                let say = move |says| {
                    let (client, node) = (client.clone(), node.clone());
                    async move { direct::say(&client, &node, says).await }
                };
                tokio::spawn(work(to_say, said, say));
            }
            Source::Manifests(_) => {
                tokio::spawn(work(to_say, said, |_| ready(Ok::<_, Infallible>(()))));
            }
        }
        Self {
            wanted,
            said: is_said,
        }
    }

    /// From now on the Node is to say this.
    pub fn say(&self, says: DirectAnswers) {
        self.wanted.send_replace(Some(says));
    }

    /// Waits until the Node says it, but not for longer than that. Returns whether it does.
    pub async fn has_said(&self, says: DirectAnswers, limit: Duration) -> bool {
        let mut said = self.said.clone();
        let is_said = said.wait_for(|said| *said == Some(says));
        timeout(limit, is_said).await.is_ok_and(|said| said.is_ok())
    }
}

/// Says what is wanted until nobody can want anything any more.
async fn work<E: fmt::Display, F: Future<Output = Result<(), E>>>(
    mut wanted: watch::Receiver<Option<DirectAnswers>>,
    said: watch::Sender<Option<DirectAnswers>>,
    say: impl Fn(DirectAnswers) -> F,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let now = *wanted.borrow_and_update();
        let next = match now {
            None => None,
            Some(says) => match timeout(LIMIT, say(says)).await {
                Ok(Ok(())) => {
                    said.send_replace(now);
                    pause = FIRST_PAUSE;
                    (says == DirectAnswers::All).then_some(PERIOD)
                }
                failed => {
                    let problem = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => "the API does not answer".to_owned(),
                    };
                    tell(says, &problem);
                    let next = pause;
                    pause = LONGEST_PAUSE.min(pause * 2);
                    Some(next)
                }
            },
        };
        let due = async {
            match next {
                Some(next) => sleep(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => pause = FIRST_PAUSE,
                Err(_) => return,
            },
            () = due => {}
        }
    }
}

/// Of a node that only makes sure that it says nothing, nobody needs to know what keeps it.
fn tell(says: DirectAnswers, problem: &str) {
    match says {
        DirectAnswers::All => tracing::warn!(
            "cannot say on the Node that this node answers clients of others, who masquerade them until then (it takes \"get\" of \
             nodes and \"patch\" of nodes/status): {problem}"
        ),
        DirectAnswers::Begun | DirectAnswers::No => {
            tracing::debug!(
                "cannot say on the Node that this node answers no clients of others: {problem}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_wanted_is_said_until_it_is_so() {
        use DirectAnswers::{All, Begun};
        let (wanted, to_say) = watch::channel(None);
        let (said, is_said) = watch::channel(None);
        let announcer = Announcer {
            wanted,
            said: is_said,
        };
        let asked = RefCell::new(Vec::new());
        let say = |says| {
            asked.borrow_mut().push(says);
            ready(match asked.borrow().len() {
                1 | 2 => Err("no"),
                _ => Ok(()),
            })
        };
        let test = async {
            announcer.say(All);
            assert!(announcer.has_said(All, Duration::from_secs(10)).await);
            assert_eq!(*asked.borrow(), [All; 3], "again and again");
            sleep(PERIOD * 2).await;
            assert!(asked.borrow().len() > 3, "the Node may be another one");
            announcer.say(Begun);
            assert!(announcer.has_said(Begun, Duration::from_secs(10)).await);
            assert_eq!(asked.borrow().last(), Some(&Begun));
            let times = asked.borrow().len();
            sleep(PERIOD * 2).await;
            assert_eq!(asked.borrow().len(), times, "one that it has lost is fine");
            assert!(!announcer.has_said(All, Duration::from_secs(10)).await);
        };
        tokio::select! {
            () = work(to_say, said, say) => unreachable!("it is still wanted"),
            () = test => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_hears_it_nothing_waits() {
        let announcer = Announcer::start(&Source::Manifests("/".into()), "n1");
        announcer.say(DirectAnswers::Begun);
        let limit = Duration::from_secs(10);
        assert!(announcer.has_said(DirectAnswers::Begun, limit).await);
    }
}

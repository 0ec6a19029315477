//! Users' webhooks: in the schema, and none of them here yet.

use async_graphql::{InputObject, Interface, Object, SimpleObject};

use super::{
    Never,
    directives::private,
    enums::WebhookEvent,
    job::Job,
    scalars::{Cursor, Time},
};

/// An OAuth 2.0 client.
#[derive(Debug, SimpleObject)]
#[graphql(name = "OAuthClient")]
pub(in super::super) struct OAuthClient {
    uuid: String,
}

/// What somebody wants to be told, and where.
#[derive(Debug, Interface)]
#[graphql(
    field(name = "id", ty = "i32"),
    field(name = "events", ty = "Vec<WebhookEvent>"),
    field(name = "query", ty = "String"),
    field(name = "url", ty = "String"),
    field(
        name = "client",
        ty = "Option<OAuthClient>",
        desc = "If this webhook was registered by an authorized OAuth 2.0 client, this\nfield is non-null.",
        directive = private::apply()
    ),
    field(
        name = "deliveries",
        ty = "WebhookDeliveryCursor",
        desc = "All deliveries which have been sent to this webhook.",
        arg(name = "cursor", ty = "Option<Cursor>")
    ),
    field(
        name = "sample",
        ty = "String",
        desc = "Returns a sample payload for this subscription, for testing purposes",
        arg(name = "event", ty = "WebhookEvent")
    )
)]
pub(in super::super) enum WebhookSubscription {
    /// A user's.
    User(UserWebhookSubscription),
}

/// A user's webhook.
#[derive(Debug)]
pub(in super::super) struct UserWebhookSubscription(Never);

/// A user's webhook.
#[Object]
impl UserWebhookSubscription {
    async fn id(&self) -> i32 {
        self.0.none()
    }

    async fn events(&self) -> Vec<WebhookEvent> {
        self.0.none()
    }

    async fn query(&self) -> String {
        self.0.none()
    }

    async fn url(&self) -> String {
        self.0.none()
    }

    #[graphql(directive = private::apply())]
    async fn client(&self) -> Option<OAuthClient> {
        self.0.none()
    }

    async fn deliveries(&self, _cursor: Option<Cursor>) -> WebhookDeliveryCursor {
        self.0.none()
    }

    async fn sample(&self, _event: WebhookEvent) -> String {
        self.0.none()
    }
}

/// Something that was told.
#[derive(Debug)]
pub(in super::super) struct WebhookDelivery(Never);

/// Something that was told.
#[Object]
impl WebhookDelivery {
    async fn uuid(&self) -> String {
        self.0.none()
    }

    async fn date(&self) -> Time {
        self.0.none()
    }

    async fn event(&self) -> WebhookEvent {
        self.0.none()
    }

    async fn subscription(&self) -> WebhookSubscription {
        self.0.none()
    }

    async fn request_body(&self) -> String {
        self.0.none()
    }

    /// These details are provided only after a response is received from the
    /// remote server. If a response is sent whose Content-Type is not text/*, or
    /// cannot be decoded as UTF-8, the response body will be null. It will be
    /// truncated after 64 KiB.
    async fn response_body(&self) -> Option<String> {
        self.0.none()
    }

    async fn response_headers(&self) -> Option<String> {
        self.0.none()
    }

    async fn response_status(&self) -> Option<i32> {
        self.0.none()
    }
}

/// What is told.
#[derive(Debug, Interface)]
#[graphql(
    field(name = "uuid", ty = "String"),
    field(name = "event", ty = "WebhookEvent"),
    field(name = "date", ty = "Time")
)]
pub(in super::super) enum WebhookPayload {
    /// Of a job.
    Job(JobEvent),
}

/// Something happened to a job.
#[derive(Debug)]
pub(in super::super) struct JobEvent(Never);

/// Something happened to a job.
#[Object]
impl JobEvent {
    async fn uuid(&self) -> String {
        self.0.none()
    }

    async fn event(&self) -> WebhookEvent {
        self.0.none()
    }

    async fn date(&self) -> Time {
        self.0.none()
    }

    async fn job(&self) -> Job {
        self.0.none()
    }
}

/// A cursor for enumerating a list of webhook deliveries
///
/// If there are additional results available, the cursor object may be passed
/// back into the same endpoint to retrieve another page. If the cursor is null,
/// there are no remaining results to return.
#[derive(Debug, SimpleObject)]
pub(in super::super) struct WebhookDeliveryCursor {
    results: Vec<WebhookDelivery>,
    cursor: Option<Cursor>,
}

/// A cursor for enumerating a list of webhook subscriptions
///
/// If there are additional results available, the cursor object may be passed
/// back into the same endpoint to retrieve another page. If the cursor is null,
/// there are no remaining results to return.
#[derive(Debug, SimpleObject, Default)]
pub(in super::super) struct WebhookSubscriptionCursor {
    results: Vec<WebhookSubscription>,
    cursor: Option<Cursor>,
}

/// What somebody wants to be told, and where.
#[derive(Debug, InputObject)]
pub(in super::super) struct UserWebhookInput {
    url: String,
    events: Vec<WebhookEvent>,
    query: String,
}

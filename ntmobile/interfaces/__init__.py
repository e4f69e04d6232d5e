"""The seams: what plugins provide and what the services ask of them.

Kept few and small. Each has more than one implementation, so that it is a real seam. The modules
are by subject; all names are imported from here.
"""

from __future__ import annotations

from ntmobile.interfaces.accounts import (
    AccountToken,
    Change,
    Device,
    IAccountStore,
    IAccountStoreProvider,
    Revocation,
    TokenChanges,
    User,
)
from ntmobile.interfaces.attachments import (
    AttachmentTraffic,
    IAttachment,
    IAttachmentFactory,
    IAttachmentProvider,
    VirtualAddresses,
)
from ntmobile.interfaces.caches import (
    DeliveryState,
    Exchange,
    ICacheStorage,
    ICacheStorageProvider,
    IIncomingPart,
    Quotas,
    Standing,
    StoredDelivery,
    StoredKey,
    StoredObject,
    StoredPart,
    Usage,
    WaitingKind,
)
from ntmobile.interfaces.locations import (
    ILocationStore,
    ILocationStoreProvider,
    StoredClient,
)
from ntmobile.interfaces.lookup import (
    Coordinator,
    ICoordinatorLookup,
    ICoordinatorLookupProvider,
)
from ntmobile.interfaces.networks import (
    INetworkWatcher,
    INetworkWatcherProvider,
    LocalNetworks,
    Way,
)
from ntmobile.interfaces.notification import (
    Announcement,
    INotificationPresenter,
    INotificationPresenterProvider,
    INotifier,
    INotifierProvider,
    Notification,
    NotificationOutcome,
    NotificationResult,
)
from ntmobile.interfaces.waiting import (
    IWaitingStore,
    IWaitingStoreProvider,
    Kept,
    KnownDevice,
    WaitingKey,
)

__all__ = [
    "AccountToken",
    "Announcement",
    "AttachmentTraffic",
    "Change",
    "Coordinator",
    "DeliveryState",
    "Device",
    "Exchange",
    "IAccountStore",
    "IAccountStoreProvider",
    "IAttachment",
    "IAttachmentFactory",
    "IAttachmentProvider",
    "ICacheStorage",
    "ICacheStorageProvider",
    "ICoordinatorLookup",
    "ICoordinatorLookupProvider",
    "IIncomingPart",
    "ILocationStore",
    "ILocationStoreProvider",
    "INetworkWatcher",
    "INetworkWatcherProvider",
    "INotificationPresenter",
    "INotificationPresenterProvider",
    "INotifier",
    "INotifierProvider",
    "IWaitingStore",
    "IWaitingStoreProvider",
    "Kept",
    "KnownDevice",
    "LocalNetworks",
    "Notification",
    "NotificationOutcome",
    "NotificationResult",
    "Quotas",
    "Revocation",
    "Standing",
    "StoredClient",
    "StoredDelivery",
    "StoredKey",
    "StoredObject",
    "StoredPart",
    "TokenChanges",
    "Usage",
    "User",
    "VirtualAddresses",
    "WaitingKey",
    "WaitingKind",
    "Way",
]

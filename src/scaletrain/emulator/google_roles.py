"""The roles that Google defines, as far as their permissions matter to what is emulated here.

https://cloud.google.com/iam/docs/roles-permissions: a role lists what of it is asked for here; `*` stands for any word.
"""

from fnmatch import fnmatchcase

PREDEFINED = {
    "roles/owner": ["*"],
    "roles/editor": [
        "compute.*",
        "iam.serviceAccounts.actAs",
        "iam.serviceAccounts.create",
        "iam.serviceAccounts.delete",
        "iam.serviceAccounts.get",
        "iam.serviceAccounts.list",
        "resourcemanager.projects.get",
        "serviceusage.*",
        "storage.buckets.create",
        "storage.buckets.delete",
        "storage.buckets.list",
    ],
    "roles/viewer": ["compute.*.get", "compute.*.list", "iam.*.get", "iam.*.list", "resourcemanager.projects.get"],
    "roles/compute.admin": ["compute.*", "resourcemanager.projects.get", "serviceusage.services.get"],
    "roles/compute.instanceAdmin.v1": [
        "compute.instances.*",
        "compute.disks.*",
        "compute.images.get",
        "compute.images.list",
        "compute.images.useReadOnly",
        "compute.machineTypes.*",
        "compute.networks.get",
        "compute.networks.list",
        "compute.projects.get",
        "compute.regions.*",
        "compute.subnetworks.get",
        "compute.subnetworks.list",
        "compute.subnetworks.use",
        "compute.subnetworks.useExternalIp",
        "compute.zoneOperations.get",
        "compute.zones.*",
        "resourcemanager.projects.get",
    ],
    "roles/compute.networkUser": [
        "compute.networks.get",
        "compute.networks.list",
        "compute.networks.use",
        "compute.subnetworks.get",
        "compute.subnetworks.list",
        "compute.subnetworks.use",
        "compute.subnetworks.useExternalIp",
    ],
    "roles/compute.viewer": ["compute.*.get", "compute.*.list", "resourcemanager.projects.get"],
    "roles/iam.roleViewer": ["iam.roles.get", "iam.roles.list", "resourcemanager.projects.get"],
    "roles/iam.serviceAccountUser": [
        "iam.serviceAccounts.actAs",
        "iam.serviceAccounts.get",
        "iam.serviceAccounts.list",
        "resourcemanager.projects.get",
    ],
    "roles/iam.serviceAccountAdmin": ["iam.serviceAccounts.*", "resourcemanager.projects.get"],
    "roles/logging.logWriter": ["logging.logEntries.create"],
    "roles/monitoring.metricWriter": ["monitoring.timeSeries.create"],
    "roles/secretmanager.secretAccessor": ["secretmanager.versions.access"],
    "roles/serviceusage.serviceUsageConsumer": ["serviceusage.services.get", "serviceusage.services.use"],
    "roles/tpu.admin": ["tpu.*"],
    "roles/storage.admin": ["storage.*"],
    "roles/storage.bucketViewer": ["storage.buckets.get", "storage.buckets.list"],
    "roles/storage.objectAdmin": ["storage.objects.*", "storage.multipartUploads.*"],
    "roles/storage.objectCreator": [
        "storage.objects.create",
        "storage.multipartUploads.create",
        "storage.multipartUploads.abort",
        "storage.multipartUploads.listParts",
    ],
    "roles/storage.objectUser": [
        "storage.objects.create",
        "storage.objects.delete",
        "storage.objects.get",
        "storage.objects.list",
        "storage.objects.update",
        "storage.multipartUploads.create",
        "storage.multipartUploads.abort",
        "storage.multipartUploads.list",
        "storage.multipartUploads.listParts",
    ],
    "roles/storage.objectViewer": ["storage.objects.get", "storage.objects.list"],
    "roles/storage.legacyBucketOwner": [
        "storage.buckets.get",
        "storage.buckets.getIamPolicy",
        "storage.buckets.setIamPolicy",
        "storage.buckets.update",
        "storage.objects.create",
        "storage.objects.delete",
        "storage.objects.list",
        "storage.multipartUploads.*",
    ],
    "roles/storage.legacyBucketReader": [
        "storage.buckets.get",
        "storage.objects.list",
        "storage.multipartUploads.list",
    ],
    "roles/storage.legacyBucketWriter": [
        "storage.buckets.get",
        "storage.objects.create",
        "storage.objects.delete",
        "storage.objects.list",
        "storage.multipartUploads.*",
    ],
    "roles/storage.legacyObjectOwner": ["storage.objects.get", "storage.objects.update"],
    "roles/storage.legacyObjectReader": ["storage.objects.get"],
}


def grants(permissions: list[str], wanted: str) -> bool:
    """Tell whether a role's permissions have the wanted one."""
    return any(fnmatchcase(wanted, each) for each in permissions)

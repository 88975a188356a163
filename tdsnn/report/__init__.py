"""Texts for people, made from manifests, releases and result documents; nothing here measures anything."""

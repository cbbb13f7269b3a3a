"""modality"""
